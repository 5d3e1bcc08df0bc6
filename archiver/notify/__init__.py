"""Messages to a receiver of the operator's: written down in the database first, then sent until the receiver has them."""
