"""Small applications with limits in front of them. The tests run all of them."""
