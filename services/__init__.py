"""The five services; each runs as `python -m services.NAME` and imports none of the others."""
