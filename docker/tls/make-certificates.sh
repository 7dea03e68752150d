#!/usr/bin/env bash
# Makes what Ray's nodes need to speak TLS with each other: a certificate authority once, and a certificate for each node.
#
#   make-certificates.sh FOLDER NAME_OR_ADDRESS...
#
# FOLDER/ca.key stays with you. Each node gets ca.crt, node.crt and node.key from FOLDER/<first name>/, and with them
#   RAY_USE_TLS=1 RAY_TLS_CA_CERT=…/ca.crt RAY_TLS_SERVER_CERT=…/node.crt RAY_TLS_SERVER_KEY=…/node.key
# Every name and address under which the others reach the node has to be given; 127.0.0.1 and localhost are added. So do clients of
# `kd-ray launch --address`, which are nodes in this respect. Certificates last DAYS (default 90); run it again to renew them.
set -euo pipefail
if [ "$#" -lt 2 ]; then
    echo "usage: $0 FOLDER NAME_OR_ADDRESS..." >&2
    exit 2
fi
folder="$1"
shift
days="${DAYS:-90}"
node="$folder/$1"
umask 077
mkdir -p "$node"

if [ ! -s "$folder/ca.key" ]; then
    openssl ecparam -name prime256v1 -genkey -noout -out "$folder/ca.key"
    openssl req -x509 -new -sha256 -key "$folder/ca.key" -days 3650 -subj "/CN=kd_ray cluster" -out "$folder/ca.crt" \
        -addext "basicConstraints=critical,CA:TRUE,pathlen:0" -addext "keyUsage=critical,keyCertSign,cRLSign"
fi

names=""
for name in "$@" localhost 127.0.0.1; do
    if [[ "$name" =~ ^[0-9]+(\.[0-9]+){3}$ || "$name" == *:* ]]; then
        names+="${names:+,}IP:$name"
    else
        names+="${names:+,}DNS:$name"
    fi
done

openssl ecparam -name prime256v1 -genkey -noout -out "$node/node.key"
openssl req -new -sha256 -key "$node/node.key" -subj "/CN=$1" -out "$node/node.csr"
# Ray's nodes are servers and clients of each other.
openssl x509 -req -sha256 -in "$node/node.csr" -CA "$folder/ca.crt" -CAkey "$folder/ca.key" -CAcreateserial -days "$days" \
    -out "$node/node.crt" -extfile <(printf 'subjectAltName=%s\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth,clientAuth\n' "$names") \
    2>/dev/null
rm "$node/node.csr"
cp "$folder/ca.crt" "$node/ca.crt"
echo "$node: $names, for $days days"
