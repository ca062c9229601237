"""The language of Vireo: resources, commands, events, telemetry, subjects. Values only.

Pure: nothing in here reads a clock, makes an id, touches a network or logs. Every type that goes over
a wire is a frozen msgspec Struct; new fields have defaults, unknown fields are ignored when reading.
"""
