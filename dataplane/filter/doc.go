// Package filter is the home of the network filters, one package each.
package filter
