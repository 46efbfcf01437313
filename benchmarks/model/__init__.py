"""The whole generator against its peers."""
