select * from ({nearest}) nearest where distance <= {most}
