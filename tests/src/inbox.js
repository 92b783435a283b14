// A plugin of Haraka: takes mail for example.test into a maildir, and turns some networks away by the client's address.
'use strict'

const fs = require('node:fs')
const net = require('node:net')
const path = require('node:path')

const home = path.dirname(__dirname)
const barred = new net.BlockList()
barred.addSubnet('198.18.9.0', 24, 'ipv4')
barred.addSubnet('2001:2:0:9::', 64, 'ipv6')

exports.hook_rcpt = (next, connection, params) => {
  const { ip } = connection.remote
  if (barred.check(ip, net.isIPv6(ip) ? 'ipv6' : 'ipv4')) return next(DENY, 'not from here')
  return params[0].host === 'example.test' ? next(OK) : next(DENY, 'not for here')
}

exports.hook_queue = (next, connection) => {
  const name = connection.transaction.uuid
  const file = fs.createWriteStream(path.join(home, 'mail/tmp', name))
  file.once('finish', () => {
    // A reader of the maildir sees whole messages only.
    fs.renameSync(path.join(home, 'mail/tmp', name), path.join(home, 'mail/new', name))
    next(OK)
  })
  file.once('error', () => next(DENYSOFT))
  connection.transaction.message_stream.pipe(file)
}
