from headrace.configs import secrets

# Commands and flow runs import this package first, so that secrets are masked in their logs.
secrets.guard()
