select {columns}, -1.0::float8 as distance from {table} where id = any({ids}::{id_type}[])
