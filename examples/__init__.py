"""Applications behind the middleware, each in as few lines as it takes. The tests run them all."""
