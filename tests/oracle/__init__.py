"""Second opinions: naive versions of what production does cleverly."""
