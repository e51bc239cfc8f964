"""Garbage collection among gateways that write, stall and crash."""
