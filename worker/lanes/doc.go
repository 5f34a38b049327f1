// Package lanes decides by which lane each call goes, and when.
package lanes
