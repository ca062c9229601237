"""Configuration for Vireo on several machines: what `vireo init` writes.

One folder per process, which holds all that this process needs and no other's secret: its settings, its
password; the server's configuration with every user's permissions. Files only; nothing is started.
"""
