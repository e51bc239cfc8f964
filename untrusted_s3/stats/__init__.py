"""What a store holds, which requests its gateways send, and about what it costs. Needs no password."""
