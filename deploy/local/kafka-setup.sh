#!/usr/bin/env bash
# Fetch Apache Kafka's artefacts with Maven into .local/kafka/libs. Does nothing when they are there.
set -euo pipefail

version=4.1.1
repo=$(cd "$(dirname "$0")/../.." && pwd)
home="$repo/.local/kafka"

if [[ -f "$home/libs/kafka_2.13-$version.jar" && -f "$home/libs/.complete-$version-tools" ]]; then
    exit 0
fi
for tool in java mvn; do
    if ! command -v "$tool" >/dev/null; then
        echo "kafka-setup: $tool is missing. Install a Java runtime (17 or later) and Maven;" \
            "on Debian as root: deploy/local/system-packages.sh" >&2
        exit 1
    fi
done

mkdir -p "$home"
cat >"$home/pom.xml" <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>moodline</groupId>
  <artifactId>local-kafka</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_2.13</artifactId>
      <version>$version</version>
    </dependency>
    <!-- kafka-acls and its siblings: one jar. What else it names belongs to Kafka Connect. -->
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka-tools</artifactId>
      <version>$version</version>
      <exclusions><exclusion><groupId>*</groupId><artifactId>*</artifactId></exclusion></exclusions>
    </dependency>
  </dependencies>
</project>
POM

echo "kafka-setup: fetching Apache Kafka $version into .local/kafka/libs" >&2
fetched=$(mktemp -d "$home/libs.XXXXXX")
trap 'rm -rf "$fetched"' EXIT
if ! mvn --batch-mode --quiet --file "$home/pom.xml" dependency:copy-dependencies \
    -DincludeScope=runtime "-DoutputDirectory=$fetched" >"$home/fetch.log" 2>&1; then
    tail -n 20 "$home/fetch.log" >&2
    echo "kafka-setup: Maven could not fetch Kafka; its whole output is in .local/kafka/fetch.log" >&2
    exit 1
fi
# All jars or none: whoever looks meanwhile never sees half of them.
touch "$fetched/.complete-$version-tools"
chmod 755 "$fetched"
rm -rf "$home/libs"
mv "$fetched" "$home/libs"
