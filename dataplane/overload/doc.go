// Package overload is Envoy's overload manager: monitors measure how much of a
// resource is in use, triggers make a state of that, and whoever accepts connections,
// or waits for a handshake, asks for it. It ends no connection by itself.
package overload
