"""Tables of other shapes than one row a bar and one column a price."""
