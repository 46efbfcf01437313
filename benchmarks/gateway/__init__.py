"""What the gateway costs: its doors beside Triton's own, thousands of connections, and memory."""
