"""Optional faster paths with the numbers of the stock libraries, switched on by a profile's ``shared_prefix``."""
