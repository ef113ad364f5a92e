"""The kubelet's APIs as this project writes them down: three .proto files and the code made from them (gen/)."""
