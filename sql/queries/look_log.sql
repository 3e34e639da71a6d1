exists (select from {table} where ctid >= ($1::tid[])[{number}])
