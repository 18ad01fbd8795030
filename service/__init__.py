"""What users talk to, and the dispatcher: API, queue, Ray cluster, client, command line, local stack."""
