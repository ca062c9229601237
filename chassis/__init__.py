"""What every service stands on: start and stop, settings, the bus, Postgres, logs, traces, clock.

Nothing in here knows a virtual machine: the words of the domain live in `schemas` and in the services.
"""
