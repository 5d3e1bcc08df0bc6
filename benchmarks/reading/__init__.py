"""How long a person waits for an answer about millions of sessions."""
