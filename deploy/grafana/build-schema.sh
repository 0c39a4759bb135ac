#!/bin/sh
# Makes deploy/grafana/schema/grafana.json: the JSON schema of dashboards, of the Grafana version that .env names, from Grafana's
# own types (the npm package @grafana/schema). Needs node and npm; run it when GRAFANA_IMAGE changes.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
version=$(sed -n 's/^GRAFANA_IMAGE=.*://p' "$here/../../.env")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
npm init -y >/dev/null
npm install --no-audit --no-fund --ignore-scripts --silent "@grafana/schema@$version" ts-json-schema-generator@2
raw=node_modules/@grafana/schema/dist/types/raw
schema() { npx ts-json-schema-generator --no-type-check --minify --path "$raw/$1" --type "$2"; }
panel() {
  printf '"%s":{"options":%s,"custom":%s}' "$1" "$(schema "composable/$1/panelcfg/x/$2" Options)" "$3"
}
mkdir -p "$here/schema"
{
  printf '{"version":"%s","dashboard":%s,"panels":{' "$version" "$(schema dashboard/x/dashboard_types.gen.d.ts Dashboard)"
  timeseries=composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen.d.ts
  panel timeseries TimeSeriesPanelCfg_types.gen.d.ts "$(schema "$timeseries" FieldConfig)"
  printf ','
  panel stat StatPanelCfg_types.gen.d.ts '{"type":"object","additionalProperties":false}'
  printf ','
  panel bargauge BarGaugePanelCfg_types.gen.d.ts '{"type":"object","additionalProperties":false}'
  printf '}}'
} | node -e 'const fs = require("fs"); console.log(JSON.stringify(JSON.parse(fs.readFileSync(0, "utf8")), null, 1))' >"$here/schema/grafana.json"
