"""Users and their items: an application in the manner of FastAPI's full-stack template."""
