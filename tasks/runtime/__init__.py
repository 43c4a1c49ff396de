"""Infrastructure of every stage: artifacts, the workspace, supervised processes, hardware."""
