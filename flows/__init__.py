from headrace.configs import secrets

# Here begin the processes that log to terminals and servers: commands, and the runs of a worker.
secrets.guard()
