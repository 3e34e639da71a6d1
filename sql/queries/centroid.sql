select {vectors}.vector_send(avg(embedding::{vectors}.vector)) from {table} where {condition}
