"""The store and its file names, retries, disks and work folders."""
