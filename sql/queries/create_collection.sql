create table if not exists {table} (
  id {id_type} not null,
  {time_column}
  metadata jsonb,
  contents text,
  embedding {vectors}.vector({dimensions}),
  primary key ({key})
) {partitioning}
