"""What other services are trusted with and how they prove who they are: sealed secrets, signatures."""
