"""What puts Vireo on machines: the tiny guest, isolated hosts, server configuration, the demo.

Nothing here is imported by the services.
"""
