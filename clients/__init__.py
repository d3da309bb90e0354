"""What makes the clients out of the contract: none of it is part of the product."""
