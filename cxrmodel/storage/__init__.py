"""Where results lie: the store and its file names, retries, disks, work folders."""
