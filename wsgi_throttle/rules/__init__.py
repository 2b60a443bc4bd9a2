"""Which rule a request falls under, and what it is to be charged."""
