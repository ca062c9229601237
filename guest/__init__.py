"""What goes into guests: the guest agent, one file, and the unit that keeps it running.

Nothing here is imported by the control plane; the command line hands it out (`vireo guest-agent`).
"""
