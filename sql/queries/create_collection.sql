create table if not exists {table} (
  id {id_type} not null,
  {time_column}
  metadata jsonb,
  contents text,
  embedding {embedding},
  primary key ({key})
) {partitioning}
