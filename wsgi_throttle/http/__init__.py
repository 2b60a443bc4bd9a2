"""What a client is told: the headers of each response, and answers in the application's place."""
