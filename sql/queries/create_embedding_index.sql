create index {concurrently} {index} on {only} {table} using {method} (embedding {operator_class}) {options}
