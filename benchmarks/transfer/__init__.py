"""The archiver's transfers beside curl, aria2, rclone and the usual SDKs, on loopback, in one run."""
