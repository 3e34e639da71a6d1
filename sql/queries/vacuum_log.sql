vacuum (skip_locked, truncate {truncate}) {log}
