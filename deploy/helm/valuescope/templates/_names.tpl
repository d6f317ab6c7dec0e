{{- define "valuescope.name" -}}
{{- if contains "valuescope" .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-valuescope" .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- /* Of everything that belongs to the release. */ -}}
{{- define "valuescope.selector" -}}
app.kubernetes.io/name: valuescope
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "valuescope.labels" -}}
{{ include "valuescope.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- /* Of a list of the root and the name of a pool. */ -}}
{{- define "valuescope.poolSelector" -}}
{{ include "valuescope.selector" (index . 0) }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- define "valuescope.poolLabels" -}}
{{ include "valuescope.labels" (index . 0) }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- define "valuescope.storeClaim" -}}
{{- .Values.store.volume.claim | default (printf "%s-store" (include "valuescope.name" .)) -}}
{{- end -}}

{{- /* The image of a list of the root and a pool. */ -}}
{{- define "valuescope.image" -}}
{{- $root := index . 0 -}}
{{- $own := (index . 1).image | default dict -}}
{{- $image := mergeOverwrite (deepCopy $root.Values.image) $own -}}
{{- if and $own.tag (not $own.digest) -}}{{- $_ := set $image "digest" "" -}}{{- end -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository ($image.tag | default $root.Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{- /* "postgresql" where pools share a database, empty where one server has its file. */ -}}
{{- define "valuescope.shared" -}}
{{- if or .Values.store.postgresql.url .Values.store.postgresql.urlSecret -}}postgresql{{- end -}}
{{- end -}}

{{- /* Port of a URL as text; of a list of the URL and the port of one that names none. */ -}}
{{- define "valuescope.port" -}}
{{- $host := (urlParse (index . 0)).host -}}
{{- regexFind "[0-9]+$" (regexFind ":[0-9]+$" $host) | default (index . 1) -}}
{{- end -}}

{{- /* What is allowed by itself and cannot be had together. */ -}}
{{- define "valuescope.check" -}}
{{- $access := .Values.access -}}
{{- $shared := include "valuescope.shared" . -}}
{{- if not .Values.pools -}}
{{- fail "pools: name at least one pool, such as --set 'pools.main.models={MODEL}' (see the chart's examples)" -}}
{{- end -}}
{{- if not .Values.models.claim -}}
{{- fail "models.claim: name the PersistentVolumeClaim that holds the models" -}}
{{- end -}}
{{- if and $access.tokens.secret (not $access.tls.secret) -}}
{{- fail "access.tokens.secret: tokens are not sent in the clear; set access.tls.secret too" -}}
{{- end -}}
{{- if and $access.tls.clientCa.secret (not $access.tls.secret) -}}
{{- fail "access.tls.clientCa.secret: clients' certificates need access.tls.secret too" -}}
{{- end -}}
{{- if ne (empty $access.jwt.keysConfigMap) (empty $access.jwt.issuer) -}}
{{- fail "access.jwt: keysConfigMap and issuer need each other" -}}
{{- end -}}
{{- if and $access.jwt.keysConfigMap (not $access.tokens.secret) -}}
{{- fail "access.jwt.keysConfigMap: set access.tokens.secret too, whose lines say who the tokens' subjects are" -}}
{{- end -}}
{{- $known := or $access.tokens.secret $access.tls.clientCa.secret -}}
{{- if and $access.insecure $known -}}
{{- fail "access.insecure: leave it false where access.tokens or access.tls.clientCa say who may call" -}}
{{- end -}}
{{- if not (or $access.insecure $known) -}}
{{- fail "access: set access.tls.secret and access.tokens.secret (or access.tls.clientCa.secret), or access.insecure=true if whoever reaches the Services may do everything" -}}
{{- end -}}
{{- if $shared -}}
{{- if not (or .Values.artifacts.claim .Values.artifacts.s3) -}}
{{- fail "artifacts: pools that share a database share its blobs: set artifacts.s3, or artifacts.claim" -}}
{{- end -}}
{{- else -}}
{{- if gt (len .Values.pools) 1 -}}
{{- fail "pools: several pools share a database: set store.postgresql" -}}
{{- end -}}
{{- if .Values.artifacts.claim -}}
{{- fail "artifacts.claim: is for store.postgresql alone: a SQLite file's blobs lie beside it" -}}
{{- end -}}
{{- range $name, $pool := .Values.pools -}}
{{- if or $pool.autoscaling (ne (int ($pool.replicas | default 1)) 1) -}}
{{- fail (printf "pools.%s: a SQLite file serves one server: set store.postgresql, or replicas to 1" $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and .Values.artifacts.claim .Values.artifacts.s3 -}}
{{- fail "artifacts: set one of artifacts.claim and artifacts.s3" -}}
{{- end -}}
{{- range $name, $pool := .Values.pools -}}
{{- with $pool.autoscaling -}}
{{- if hasKey $pool "replicas" -}}
{{- fail (printf "pools.%s: set one of replicas and autoscaling" $name) -}}
{{- end -}}
{{- if gt (int .minReplicas) (int .maxReplicas) -}}
{{- fail (printf "pools.%s.autoscaling: minReplicas is above maxReplicas" $name) -}}
{{- end -}}
{{- end -}}
{{- if and (eq (int ($pool.maxSurge | default 0)) 0) (hasKey $pool "maxSurge") (eq (int ($pool.maxUnavailable | default 0)) 0) -}}
{{- fail (printf "pools.%s: an update can begin only where maxSurge or maxUnavailable is above 0" $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
