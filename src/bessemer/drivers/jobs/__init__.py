"""Members of jobs: processes of a gang, run to their end behind walls."""
