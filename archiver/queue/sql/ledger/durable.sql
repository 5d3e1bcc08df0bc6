-- What is sealed is published next: a commit that a power cut takes back would have been.
SET LOCAL synchronous_commit = on
