"""Index and storage formats that methods of more than one family share."""
