select {extension}.create_hypertable({table}, 'id', if_not_exists => true,
  time_partitioning_func => 'public.uuid_timestamp', chunk_time_interval => {interval})
