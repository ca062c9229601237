"""The inventory's tables as numbered SQL; never changed once released, only added to."""
