"""The metrics service's tables; see `chassis.migrations`."""
