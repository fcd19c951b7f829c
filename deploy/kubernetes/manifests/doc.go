// Package manifests tests the manifests beside it: it builds each overlay with the library that kubectl apply -k builds it
// with, and reads the result as the types that the API has for it.
//
// It is a module of its own, so that Parley does not depend on Kubernetes.
package manifests
